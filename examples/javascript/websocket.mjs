// Calls, and messages as they arrive: node websocket.mjs ws://127.0.0.1:8080/ws
import WebSocket from "ws";

const socket = new WebSocket(process.argv[2] ?? "ws://127.0.0.1:8080/ws");
const waiting = new Map();
let id = 0;

function call(method, params) {
  socket.send(JSON.stringify({ jsonrpc: "2.0", method, params, id: ++id }));
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

let showMessage;
const shown = new Promise((resolve) => (showMessage = resolve));

socket.on("message", (data) => {
  const message = JSON.parse(data);
  if (message.method === "message") {
    showMessage(message.params);
    return;
  }
  const { resolve, reject } = waiting.get(message.id);
  waiting.delete(message.id);
  if (message.error) {
    reject(new Error(message.error.message));
  } else {
    resolve(message.result);
  }
});

await new Promise((resolve, reject) => socket.on("open", resolve).on("error", reject));
console.log("a call:", await call("divide", [1, 4]));

await call("subscribe", ["greeting:*"]);
// Any process may send the message; here it is this program, by berryMQ's functions.
const token = await call("connect_oneway", [60]);
console.log("sent:", await call("send_message", [token, "greeting:hello", ["you"], { from: "me" }]));

const message = await shown;
console.log("a message:", message.id, JSON.stringify(message.args), JSON.stringify(message.kwargs));
socket.close();
