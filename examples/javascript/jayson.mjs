// Calls by the package jayson: node jayson.mjs http://127.0.0.1:8080
import jayson from "jayson/promise/index.js";

const client = jayson.Client.http(process.argv[2] ?? "http://127.0.0.1:8080");

const answer = await client.request("divide", [1, 4]);
console.log("a call:", answer.result);

const named = await client.request("text.shout", { words: "anybody there" });
console.log("by name:", named.result);

const { error } = await client.request("divide", [1, 0]);
console.log("its error:", error.code, error.data.type);

const batch = await client.request([
  client.request("divide", [6, 3], undefined, false),
  client.request("divide", [6, 4], undefined, false),
]);
console.log("a batch:", batch.map((each) => each.result).sort().join(", "));
