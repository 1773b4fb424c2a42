// Work in another language: an HTTP service in Node that adds up numbers. docs/work.md says what it gets and may answer.
//
//     node examples/in-node/kinds/sum/service.mjs 8081
//     ./scripts/local --kinds examples/in-node/kinds

import { createServer } from "node:http";

createServer(async (request, response) => {
  let body = "";
  for await (const piece of request) body += piece;
  const { input } = JSON.parse(body);
  if (!Array.isArray(input?.numbers)) {
    response.writeHead(422).end("input has no array `numbers`");
    return;
  }
  response.writeHead(200, { "Content-Type": "application/x-ndjson" });
  let sum = 0;
  for (const [i, number] of input.numbers.entries()) {
    sum += number;
    response.write(JSON.stringify({ progress: (i + 1) / input.numbers.length, message: `added ${number}` }) + "\n");
    await new Promise((resolve) => setTimeout(resolve, input.pause ?? 0));
  }
  response.end(JSON.stringify({ result: { sum, key: request.headers["idempotency-key"] } }) + "\n");
}).listen(Number(process.argv[2] ?? 8081), "127.0.0.1");
