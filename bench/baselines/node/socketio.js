// Socket.IO: every client is in one shared room, and in a room of its user (?user=U in the address it connects to).
//
// GET /send?count=C&bytes=B&users=N sends C messages to the rooms of the users 0 to N-1, one emit each; without users,
// one emit to the shared room. A packet has B bytes. The message is a text, which costs less to encode than an object.
// REDIS_URL: the Redis over which this and other processes reach each other's clients, by the Redis adapter.
"use strict";

const http = require("http");
const { Server } = require("socket.io");

const EVENT = "m";
const AROUND = `42["${EVENT}",""]`.length;

async function redisAdapter(url) {
  const { createAdapter } = require("@socket.io/redis-adapter");
  const { createClient } = require("redis");
  const publisher = createClient({ url });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  return createAdapter(publisher, subscriber);
}

async function main() {
  const server = http.createServer((request, response) => {
    const asked = new URL(request.url, "http://localhost").searchParams;
    const message = "x".repeat(Number(asked.get("bytes")) - AROUND);
    const users = Number(asked.get("users") || 0);
    for (let number = 0; number < Number(asked.get("count")); number++) {
      if (!users) io.to("all").emit(EVENT, message);
      for (let user = 0; user < users; user++) io.to(`user:${user}`).emit(EVENT, message);
    }
    response.end();
  });
  const options = { serveClient: false };
  if (process.env.REDIS_URL) options.adapter = await redisAdapter(process.env.REDIS_URL);
  const io = new Server(server, options);
  io.on("connection", (socket) => socket.join(["all", `user:${socket.handshake.query.user}`]));
  server.listen({ port: Number(process.env.PORT), host: "127.0.0.1", backlog: 4096 }, () => console.log("ready"));
}

main();
