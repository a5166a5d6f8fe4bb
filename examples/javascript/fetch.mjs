// Calls by fetch, which is part of Node.js: node fetch.mjs http://127.0.0.1:8080
const url = process.argv[2] ?? "http://127.0.0.1:8080";

async function post(message) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(message),
  });
  // 204: no request in the message expects an answer.
  return response.status === 204 ? null : response.json();
}

let id = 0;

async function call(method, params) {
  const answer = await post({ jsonrpc: "2.0", method, params, id: ++id });
  if (answer.error) {
    throw Object.assign(new Error(answer.error.message), answer.error);
  }
  return answer.result;
}

console.log("a call:", await call("divide", [1, 4]));
console.log("by name:", await call("text.shout", { words: "anybody there" }));

try {
  await call("divide", [1, 0]);
} catch (error) {
  console.log("its error:", error.code, error.data.type);
}

const answers = await post([
  { jsonrpc: "2.0", method: "divide", params: [6, 3], id: "first" },
  { jsonrpc: "2.0", method: "text.shout", params: ["not answered"] },
  { jsonrpc: "2.0", method: "divide", params: [6, 4], id: "second" },
]);
console.log("a batch:", answers.map((answer) => `${answer.id} ${answer.result}`).sort().join(", "));

console.log("a notification:", await post({ jsonrpc: "2.0", method: "text.shout", params: ["hey"] }));

const { info, methods } = await call("rpc.discover");
const divide = methods.find((method) => method.name === "divide");
console.log(`what ${info.title} says of divide:`, divide.params.map((each) => each.name).join(", "));
