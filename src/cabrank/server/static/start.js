// Shows /openapi.json. A server that wants a token is given the one that the reader types in; it is kept until the tab is closed.
"use strict";

const authorized = (request) => {
  const token = sessionStorage.getItem("token");
  if (token) request.headers = { ...request.headers, Authorization: `Bearer ${token}` };
  return request;
};

async function description() {
  const response = await fetch("openapi.json", authorized({}));
  if (response.status !== 401) return response.json();
  const token = prompt("This server asks for its token");
  if (token === null) return {};
  sessionStorage.setItem("token", token);
  return description();
}

description().then((spec) => SwaggerUIBundle({ spec, dom_id: "#docs", requestInterceptor: authorized }));
