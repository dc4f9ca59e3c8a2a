// Drives clients/typescript's sockets as a program would; prints what came, as JSON.
const { PERRY_URL: url, PERRY_TOKEN: token, PERRY_CLIENT: client } = process.env;
const { connect } = await import(`${client}/client.ts`);
const { Command, follow } = await import(`${client}/socket.ts`);

const target = { url, token };
const perry = connect(target);
const tell = (name, value) => console.log(JSON.stringify({ name, value }));

// A connection that breaks in the middle: the next one goes on after the last event.
const sockets = [];
globalThis.WebSocket = class extends WebSocket {
  constructor(...given) {
    super(...given);
    sockets.push(this);
    if (sockets.length === 2) this.addEventListener("open", () => setTimeout(stopAlpha, 100));
  }
};
const stopAlpha = () => perry.workspaces.stop({ name: "alpha" });
const stop = new AbortController();
const epochs = new Set();
const resumed = new Set();
for await (const event of follow(target, stop.signal)) {
  if (event.type === "snapshot") {
    if (epochs.size === 0) tell("first", event.type);
    epochs.add(event.epoch);
    await perry.workspaces.start({ name: "alpha" });
    continue;
  }
  if (sockets.length === 1) sockets[0].close();
  else resumed.add(event.type);
  if (event.workspace?.status === "stopped") stop.abort();
}
tell("resumed", [...resumed]);
tell("epochs", epochs.size);

async function said(command) {
  const all = { stdout: 0, stderr: "" };
  for await (const { stream, data } of command.output) {
    if (stream === "stdout") all.stdout += data.length;
    else all.stderr += new TextDecoder().decode(data);
  }
  return all;
}

await perry.workspaces.start({ name: "alpha" });
const echo = new Command(target, "alpha", { command: ["sh", "-c", "cat; echo no >&2; exit 7"] });
const writer = echo.input.getWriter();
const written = writer.write(new Uint8Array(3_000_000)).then(() => writer.close());
const output = await said(echo);
await written;
tell("echo", { code: await echo.exit, ...output });

const sleeping = new Command(target, "alpha", { command: ["sh", "-c", "echo up; exec sleep 60"] });
const reader = sleeping.output.getReader();
await reader.read();
sleeping.signal("INT");
tell("signalled", await sleeping.exit);

tell("missing", await new Command(target, "alpha", { command: ["no-such-program"] }).exit);
tell("nobody", await new Command(target, "nobody", { command: ["true"] }).exit.catch((error) => error.code));
tell("wrong token", await new Command({ url, token: "x" }, "alpha", { command: ["true"] }).exit.catch((error) => error.code));
