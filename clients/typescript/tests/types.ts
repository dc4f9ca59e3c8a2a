// Compiled, never run: every line below `@ts-expect-error` is a wrong call, and compiling one is the error.
import { connect, type Input, type Output, type Workspace } from "../client.ts";
import { Command, type Event, follow } from "../socket.ts";

const target = { url: "http://perry", token: "token" };
const perry = connect(target);

export async function right(): Promise<string[]> {
  const workspaces: Workspace[] = await perry.workspaces.list();
  const one = await perry.workspaces.get({ name: "alpha" });
  const status: "running" | "stopped" | "creating" | "error" = one.status;
  await perry.workspaces.start({ name: "alpha", clone: "https://example.com/a.git", memory: 1 << 30, wait: false });
  const nothing: null = await perry.workspaces.delete({ name: "alpha", force: true });
  const { exitCode } = await perry.workspaces.exec({ name: "alpha", command: ["true"] });
  const input: Input<"workspaces.get"> = { name: "alpha" };
  const output: Output<"auth.whoami"> = await perry.auth.whoami();
  return [...workspaces.map((each) => each.name), status, String(nothing), String(exitCode), input.name, output.kind];
}

export async function wrong(): Promise<void> {
  // @ts-expect-error -- there is no such group
  await perry.workspace.list();
  // @ts-expect-error -- there is no such procedure
  await perry.workspaces.explode({ name: "alpha" });
  // @ts-expect-error -- the input is missing
  await perry.workspaces.get();
  // @ts-expect-error -- a field is missing
  await perry.workspaces.get({});
  // @ts-expect-error -- a field has the wrong type
  await perry.workspaces.get({ name: 5 });
  // @ts-expect-error -- there is no such field
  await perry.workspaces.get({ name: "alpha", nam: "beta" });
  // @ts-expect-error -- the wire's names are camelCase, and this one is not there
  await perry.workspaces.start({ name: "alpha", no_wait: true });
  // @ts-expect-error -- a command is a list, for no shell
  await perry.workspaces.exec({ name: "alpha", command: "ls -l" });
  // @ts-expect-error -- there is no such status
  if ((await perry.workspaces.get({ name: "alpha" })).status === "sleeping") return;
  // @ts-expect-error -- what is given has no such field
  (await perry.agent.info()).port;
}

export async function sockets(): Promise<Event | undefined> {
  for await (const event of follow(target)) {
    if (event.type === "workspace") return event.workspace.name === "alpha" ? event : undefined;
    // @ts-expect-error -- this one has no workspace
    event.workspace;
  }
  const command = new Command(target, "alpha", { command: ["cat"], tty: { columns: 80, rows: 24 } });
  command.signal("INT");
  // @ts-expect-error -- there is no such signal
  command.signal("SIGINT");
  // @ts-expect-error -- a command is a list, for no shell
  new Command(target, "alpha", { command: "ls" });
  return undefined;
}
