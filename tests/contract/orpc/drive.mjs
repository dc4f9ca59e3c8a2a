// Calls a control plane with oRPC's own client, unchanged, and prints what each call came to, as JSON.
import { createORPCClient, isDefinedError, ORPCError } from "@orpc/client";
import { RPCLink } from "@orpc/client/fetch";

const { PERRY_URL: url, PERRY_TOKEN: token } = process.env;

function client(headers) {
  return createORPCClient(new RPCLink({ url: `${url}/rpc`, headers }));
}

const perry = client({ authorization: `Bearer ${token}` });
const stranger = client({});

const calls = {
  listNone: () => perry.workspaces.list(),
  start: () => perry.workspaces.start({ name: "alpha", clone: undefined, memory: 1n << 33n, image: null }),
  list: () => perry.workspaces.list({}),
  get: () => perry.workspaces.get({ name: "alpha" }),
  createAgain: () => perry.workspaces.create({ name: "alpha" }),
  getMissing: () => perry.workspaces.get({ name: "nobody" }),
  wrongName: () => perry.workspaces.get({ name: "No Name" }),
  noInput: () => perry.workspaces.get(),
  deleteUnsaved: () => perry.workspaces.delete({ name: "alpha" }),
  deleted: () => perry.workspaces.delete({ name: "alpha", force: true }),
  unknownProcedure: () => perry.workspaces.explode({}),
  withDate: () => perry.workspaces.logs({ name: "alpha", since: new Date(0) }),
  file: () => perry.workspaces.list({ file: new Blob(["x"]) }),
  crash: () => perry.workspaces.exec({ name: "crash", command: ["true"] }),
  whoami: () => perry.auth.whoami(),
  stranger: () => stranger.workspaces.list(),
};

for (const [name, call] of Object.entries(calls)) {
  let outcome;
  try {
    outcome = { output: (await call()) ?? null };
  } catch (error) {
    const { code, status, message, data, defined } = error;
    outcome = {
      error: { code, status, message, data, defined },
      isORPCError: error instanceof ORPCError,
      isDefined: isDefinedError(error),
    };
  }
  console.log(JSON.stringify({ name, ...outcome }));
}
