/* BullMQ behind Fastify: workers of fifty jobs at once each. https://docs.bullmq.io/guide/workers/concurrency

The only peer that is not Python: run as `node bench/systems/bullmq.js`, with PORT, REDIS_PORT and WORKERS in the
environment as every peer. Fastify's documentation recommends two processor cores for each process of a front:
https://fastify.dev/docs/latest/Guides/Recommendations/
*/

"use strict";

const cluster = require("node:cluster");
const { randomUUID } = require("node:crypto");
const os = require("node:os");
const { Queue, Worker } = require("bullmq");
const fastify = require("fastify");
const { Redis } = require("ioredis");

const FRONTS = Math.max(1, Math.floor(os.availableParallelism() / 2));
const WORKERS = Number(process.env.WORKERS || 2);
const JOBS_AT_ONCE = 50;
const QUEUE = "jobs";
const REDIS = { host: "127.0.0.1", port: Number(process.env.REDIS_PORT) };

const text = { type: "string" };
const JOB = { type: "object", properties: { id: text, status: text, start: text, end: text } };
const NEW_JOB = { type: "object", required: ["start", "end"], properties: { start: text, end: text } };

/** Save the job, enqueue its id, answer. */
function front() {
  const store = new Redis(REDIS);
  const queue = new Queue(QUEUE, { connection: REDIS });
  const app = fastify();

  app.post("/jobs", { schema: { body: NEW_JOB, response: { 202: JOB } } }, async (request, reply) => {
    const job = { id: randomUUID(), status: "submitted", start: request.body.start, end: request.body.end };
    await store.hset(`job.${job.id}`, job);
    await queue.add("complete", { id: job.id });
    return reply.code(202).send(job);
  });

  app.get("/jobs_status", { schema: { response: { 200: JOB } } }, async (request, reply) => {
    const job = await store.hgetall(`job.${request.query.job_id}`);
    return job.id ? job : reply.code(404).send();
  });

  app.listen({ host: "127.0.0.1", port: Number(process.env.PORT) });
}

/** Do the jobs: no work, but that the record says that it is complete. */
function worker() {
  const store = new Redis(REDIS);
  new Worker(QUEUE, (job) => store.hset(`job.${job.data.id}`, "status", "complete"), {
    connection: { ...REDIS, maxRetriesPerRequest: null },
    concurrency: JOBS_AT_ONCE,
    // What "Auto-removal of jobs" recommends, so that the queue does not grow for ever.
    removeOnComplete: { count: 1000 },
    removeOnFail: { count: 5000 },
  });
}

if (cluster.isPrimary) {
  for (let i = 0; i < FRONTS; i++) cluster.fork({ ROLE: "front" });
  for (let i = 0; i < WORKERS; i++) cluster.fork({ ROLE: "worker" });
} else if (process.env.ROLE === "front") {
  front();
} else {
  worker();
}
