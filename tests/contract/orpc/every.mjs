// Calls the procedures that stdin lists, one after another, with oRPC's own client; prints what each gave, as JSON.
import { createORPCClient } from "@orpc/client";
import { RPCLink } from "@orpc/client/fetch";

const { PERRY_URL: url, PERRY_TOKEN: token } = process.env;
const perry = createORPCClient(new RPCLink({ url: `${url}/rpc`, headers: { authorization: `Bearer ${token}` } }));

let text = "";
for await (const chunk of process.stdin) text += chunk;
for (const [procedure, input] of JSON.parse(text)) {
  const [group, name] = procedure.split(".");
  try {
    const output = await perry[group][name](input ?? undefined);
    console.log(JSON.stringify({ procedure, output: output ?? null }));
  } catch ({ code, status, message, data }) {
    console.log(JSON.stringify({ procedure, error: { code, status, message, data } }));
  }
}
