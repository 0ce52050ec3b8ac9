// The ws package, as its documentation broadcasts: `send` to every client that is open. The payload is a Buffer that
// was made once, which spares a conversion per client.
//
// GET /send?count=C&bytes=B sends C messages of B bytes to every client.
"use strict";

const http = require("http");
const { WebSocket, WebSocketServer } = require("ws");

const server = http.createServer((request, response) => {
  const asked = new URL(request.url, "http://localhost").searchParams;
  const payload = Buffer.alloc(Number(asked.get("bytes")), "x");
  for (let message = 0; message < Number(asked.get("count")); message++) {
    for (const client of sockets.clients) {
      if (client.readyState === WebSocket.OPEN) client.send(payload, { binary: false });
    }
  }
  response.end();
});
const sockets = new WebSocketServer({ server });

server.listen({ port: Number(process.env.PORT), host: "127.0.0.1", backlog: 4096 }, () => console.log("ready"));
