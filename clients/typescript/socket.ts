// What lasts: the stream of changes, and commands with their streams. docs/api.md has the rules of both.
import type { Target } from "./client.ts";
import type { components } from "./schema.gen.ts";

type Schemas = components["schemas"];

export type Event =
  | Schemas["Snapshot"]
  | Schemas["WorkspaceChanged"]
  | Schemas["WorkspaceDeleted"]
  | Schemas["TaskChanged"];

/** The connection was closed in a way that trying again does not mend. */
export class Closed extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.name = "Closed";
    this.code = code;
  }
}

const NORMAL = 1000;
const ABNORMAL = 1006;
const NOT_AUTHORISED = 4001;
const FIRST_PAUSE = 200;
const LONGEST_PAUSE = 5000;

/**
 * Every change, from a snapshot on. Goes on where it stopped after a lost connection; ends when `signal` does. Throws
 * Closed where the agent does not accept the token.
 */
export async function* follow(target: Target, signal?: AbortSignal): AsyncGenerator<Event, void> {
  yield* resumed<Event>(target, "/events", signal);
}

export type SessionsFrame =
  | Schemas["SessionsSnapshot"]
  | Schemas["SessionChanged"]
  | Schemas["SessionDeleted"]
  | Schemas["NewMessages"];

/**
 * Every session, from a snapshot on, of all workspaces or of one; and the messages of those in `messagesOf`, from the
 * ordinal after `after` on. After a lost connection they are told from there again: a message replaces the one of its
 * ordinal. Ends and throws as `follow` does.
 */
export async function* followSessions(
  target: Target,
  wanted: { workspace?: string; messagesOf?: Omit<Schemas["Subscribe"], "type">[] } = {},
  signal?: AbortSignal,
): AsyncGenerator<SessionsFrame, void> {
  const path = wanted.workspace === undefined ? "/sessions" : `/sessions/${wanted.workspace}`;
  const first = (wanted.messagesOf ?? []).map((each) => ({ type: "subscribe" as const, ...each }));
  yield* resumed<SessionsFrame>(target, path, signal, first);
}

async function* resumed<Frame extends { type: string }>(
  target: Target,
  path: string,
  signal?: AbortSignal,
  first: ToAgent[] = [],
): AsyncGenerator<Frame, void> {
  let place = "";
  let epoch = "";
  let pause = FIRST_PAUSE;
  while (!signal?.aborted) {
    const socket = open(target, `${path}${place}`, ...first);
    const stop = () => socket.close();
    signal?.addEventListener("abort", stop);
    try {
      for await (const frame of frames(socket)) {
        if (typeof frame !== "string") continue;
        const event = JSON.parse(frame) as Frame & { epoch?: string; seq?: number };
        if (event.epoch !== undefined) epoch = event.epoch;
        if (event.seq !== undefined) place = `?epoch=${encodeURIComponent(epoch)}&after=${event.seq}`;
        pause = FIRST_PAUSE;
        yield event;
      }
    } catch (error) {
      if (error instanceof Closed && error.code === NOT_AUTHORISED) throw error;
    } finally {
      signal?.removeEventListener("abort", stop);
      socket.close();
    }
    if (!signal?.aborted) await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, LONGEST_PAUSE);
  }
}

export type Run = Omit<Schemas["Run"], "type">;
export type Signal = Schemas["SendSignal"]["signal"];
export type Output = { stream: "stdout" | "stderr"; data: Uint8Array<ArrayBuffer> };

type ToAgent = Schemas["Subscribe"] | Schemas["Run"] | Schemas["SendSignal"] | Schemas["Resize"] | Schemas["Taken"] | Schemas["EndInput"];
type FromAgent = Schemas["Started"] | Schemas["Taken"] | Schemas["Exited"] | Schemas["Failed"];

const WINDOW = 1 << 20;
const FRAME = 1 << 16;
const STDIN = 0;
const STDERR = 2;

/** A command in a workspace. It ends with its connection: `close`, or the end of the page. */
export class Command {
  /** Its exit code. Rejects where it could not be run, or not to its end. */
  readonly exit: Promise<number>;
  /** What it says. What is not read is not sent: the command waits. */
  readonly output: ReadableStream<Output>;
  /** Its stdin. A write is done when it may be followed by the next; closing it ends the input. */
  readonly input: WritableStream<Uint8Array>;

  #socket: WebSocket;
  #opened: Promise<void>;
  #credit = WINDOW;
  #unsaid = 0;
  #waiting: Output[] = [];
  #over = false;
  #error: unknown;
  #more: (() => void) | undefined;
  #news: (() => void) | undefined;

  constructor(target: Target, workspace: string, run: Run) {
    this.#socket = open(target, `/exec/${encodeURIComponent(workspace)}`, { type: "run", ...run });
    this.#opened = new Promise((resolve) => {
      this.#socket.addEventListener("open", () => resolve());
      this.#socket.addEventListener("close", () => resolve());
    });
    this.exit = this.#listen();
    this.exit.catch(() => undefined); // Who reads the output alone hears of it there.
    this.output = new ReadableStream<Output>(
      { pull: (controller) => this.#pull(controller), cancel: () => this.close() },
      { highWaterMark: 0 },
    );
    this.input = new WritableStream<Uint8Array>({
      write: (data) => this.#write(data),
      close: () => this.#say({ type: "endInput" }),
    });
  }

  signal(signal: Signal): void {
    this.#say({ type: "signal", signal });
  }

  resize(columns: number, rows: number): void {
    this.#say({ type: "resize", columns, rows });
  }

  close(): void {
    this.#socket.close();
  }

  /** Takes what comes as it comes. Output waits here, which the window bounds. */
  async #listen(): Promise<number> {
    try {
      for await (const frame of frames(this.#socket)) {
        if (typeof frame !== "string") {
          const bytes = new Uint8Array(frame);
          this.#waiting.push({ stream: bytes[0] === STDERR ? "stderr" : "stdout", data: bytes.subarray(1) });
          this.#news?.();
          continue;
        }
        const said = JSON.parse(frame) as FromAgent;
        if (said.type === "taken") {
          this.#credit += said.bytes;
          this.#more?.();
        } else if (said.type === "exited") {
          return said.code;
        } else if (said.type === "failed") {
          const { code, status, message, data } = said;
          throw Object.assign(new Error(message), { code, status, data });
        }
      }
      throw new Closed(ABNORMAL, "The connection broke, and the command was ended with it.");
    } catch (error) {
      this.#error = error;
      throw error;
    } finally {
      this.#over = true;
      this.#more?.();
      this.#news?.();
      this.#socket.close();
    }
  }

  async #pull(controller: ReadableStreamDefaultController<Output>): Promise<void> {
    while (this.#waiting.length === 0 && !this.#over) {
      await new Promise<void>((resolve) => {
        this.#news = resolve;
      });
    }
    const next = this.#waiting.shift();
    if (next !== undefined) {
      this.#unsaid += next.data.length;
      if (this.#unsaid >= WINDOW / 4) {
        this.#say({ type: "taken", bytes: this.#unsaid });
        this.#unsaid = 0;
      }
      controller.enqueue(next);
    } else if (this.#error !== undefined) {
      controller.error(this.#error);
    } else {
      controller.close();
    }
  }

  async #write(data: Uint8Array): Promise<void> {
    let rest = data;
    await this.#opened;
    while (rest.length > 0) {
      while (this.#credit === 0 && !this.#over) {
        await new Promise<void>((resolve) => {
          this.#more = resolve;
        });
      }
      if (this.#over) return; // What a command that has ended did not read is dropped.
      const count = Math.min(rest.length, this.#credit, FRAME);
      const frame = new Uint8Array(count + 1);
      frame[0] = STDIN;
      frame.set(rest.subarray(0, count), 1);
      this.#credit -= count;
      this.#socket.send(frame);
      rest = rest.subarray(count);
    }
  }

  #say(frame: ToAgent): void {
    void this.#opened.then(() => {
      if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
    });
  }
}

/** A WebSocket that says who we are, then `first`, before anything else. */
function open({ url, token }: Target, path: string, ...first: ToAgent[]): WebSocket {
  const socket = new WebSocket(`${url.replace(/^http/, "ws").replace(/\/$/, "")}${path}`);
  socket.binaryType = "arraybuffer";
  socket.addEventListener("open", () => {
    if (token !== undefined) socket.send(JSON.stringify({ type: "auth", token }));
    for (const frame of first) socket.send(JSON.stringify(frame));
  });
  return socket;
}

/** What comes, until the end of the connection. Throws Closed where that was no ordinary one. */
async function* frames(socket: WebSocket): AsyncGenerator<string | ArrayBuffer, void> {
  const waiting: (string | ArrayBuffer)[] = [];
  let end: CloseEvent | undefined;
  let news: (() => void) | undefined;
  socket.addEventListener("message", ({ data }) => {
    waiting.push(data as string | ArrayBuffer);
    news?.();
  });
  socket.addEventListener("close", (event) => {
    end = event;
    news?.();
  });
  for (;;) {
    const next = waiting.shift();
    if (next !== undefined) {
      yield next;
    } else if (end !== undefined) {
      if (end.code !== NORMAL) throw new Closed(end.code, end.reason || `The connection was closed (${end.code}).`);
      return;
    } else {
      await new Promise<void>((resolve) => {
        news = resolve;
      });
    }
  }
}
