"""The pages, and the files that they are made of. They have no data in them: their scripts ask for it."""

from importlib.resources import files

from flask import Request, Response

from knative_jobs.web import cors

_PAGE = ("knative_jobs.web", "page/page.html")
DASHBOARD = {"/": _PAGE, "/dashboard": _PAGE} | {
    f"/dashboard/{name}": ("knative_jobs.web", f"page/{name}")
    for name in ("page.css", "page.js", "api.js", "charts.js", "job.js", "show.js", "table.js")
}
"""Each path with the package and the file that is there."""
DESCRIPTION = {
    "/docs": ("knative_jobs.web", "page/docs.html"),
    "/docs/init.css": ("knative_jobs.web", "page/init.css"),
    "/docs/init.js": ("knative_jobs.web", "page/init.js"),
    "/docs/swagger-ui-bundle.js": ("flask_swagger_ui", "dist/swagger-ui-bundle.js"),
    "/docs/swagger-ui.css": ("flask_swagger_ui", "dist/swagger-ui.css"),
}
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src {styles}; img-src 'self' data:; connect-src {connect}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def answer_file(request: Request, place: tuple[str, str]) -> Response:
    """Answer with a file, or 304 when the browser has it already.

    The Content-Security-Policy lets a page load its own files alone and talk to our Services alone. Swagger UI has
    styles in its elements; a style can do much less than a script.
    """
    package, path = place
    text = files(package).joinpath(path).read_bytes()
    response = Response(text, mimetype=_TYPES[path.rpartition(".")[2]])
    domain = cors.domain(request.host)
    response.headers.update(
        {
            "Cache-Control": "no-cache",
            "Content-Security-Policy": _POLICY.format(
                styles="'self' 'unsafe-inline'" if place == DESCRIPTION["/docs"] else "'self'",
                connect=f"'self' *{domain}" if domain else "'self'",
            ),
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
        }
    )
    response.add_etag()
    response.make_conditional(request)
    return response
