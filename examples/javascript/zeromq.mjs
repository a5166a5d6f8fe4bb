// Calls over ZeroMQ: node zeromq.mjs tcp://127.0.0.1:8082
import { Dealer, Request } from "zeromq";

const endpoint = process.argv[2] ?? "tcp://127.0.0.1:8082";

// One request, one answer.
const request = new Request();
request.connect(endpoint);
await request.send(JSON.stringify({ jsonrpc: "2.0", method: "divide", params: [1, 4], id: 1 }));
const [answer] = await request.receive();
console.log("a call:", JSON.parse(answer).result);
request.close();

// Many at once, and notifications from the server.
const dealer = new Dealer();
dealer.connect(endpoint);
for (let id = 1; id <= 100; id++) {
  await dealer.send(JSON.stringify({ jsonrpc: "2.0", method: "divide", params: [id, 2], id }));
}
let sum = 0;
for (let count = 1; count <= 100; count++) {
  const [text] = await dealer.receive();
  sum += JSON.parse(text).result;
}
console.log("a hundred at once:", sum);

await dealer.send(
  JSON.stringify([
    { jsonrpc: "2.0", method: "subscribe", params: ["greeting:*"], id: "s" },
    { jsonrpc: "2.0", method: "connect_oneway", params: [60], id: "c" },
  ]),
);
const [texts] = await dealer.receive();
const token = JSON.parse(texts).find((each) => each.id === "c").result;
await dealer.send(
  JSON.stringify({ jsonrpc: "2.0", method: "send_message", params: [token, "greeting:hello", ["you"], {}] }),
);
const [message] = await dealer.receive();
console.log("a message:", JSON.parse(message).params.id, JSON.stringify(JSON.parse(message).params.args));
dealer.close();
