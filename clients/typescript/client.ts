// The procedures of a Perry agent, typed by the document that the agent publishes (protocol/openapi.json).
//
//     const perry = connect({ url: "http://perry", token });
//     const { status } = await perry.workspaces.get({ name: "alpha" });
//
// Calls go through oRPC's own client, unchanged. What fails is an ORPCError with code, status, message and data.
import { type Client, createORPCClient, type ORPCError } from "@orpc/client";
import { RPCLink } from "@orpc/client/fetch";
import type { components, operations } from "./schema.gen.ts";

export type Schemas = components["schemas"];
export type Workspace = Schemas["Workspace"];

/** "workspaces.get" and the like: every operation that is a procedure. */
export type ProcedureName = {
  [K in keyof operations]: operations[K] extends { requestBody: { content: { "application/json": unknown } } }
    ? K
    : never;
}[keyof operations] & `${string}.${string}`;

type Body<P extends ProcedureName> = operations[P]["requestBody"]["content"]["application/json"];

/** What a procedure takes; undefined where it takes nothing. */
export type Input<P extends ProcedureName> = Body<P> extends { json: infer I } ? I : undefined;

/** What a procedure gives. */
export type Output<P extends ProcedureName> = operations[P]["responses"][200]["content"]["application/json"]["json"];

type Group = ProcedureName extends `${infer G}.${string}` ? G : never;
type NameIn<G extends string, P extends string = ProcedureName> = P extends `${G}.${infer N}` ? N : never;
type Error = globalThis.Error | ORPCError<string, unknown>;

/** Every procedure, as perry.group.name(input). */
export type Perry = {
  [G in Group]: {
    [N in NameIn<G>]: `${G}.${N}` extends infer P extends ProcedureName
      ? Client<Record<never, never>, Input<P>, Output<P>, Error>
      : never;
  };
};

export interface Target {
  /** Where the agent answers, such as http://perry or http://localhost:7391. */
  url: string;
  /** What `perry agent token` prints. None is needed on the tailnet. */
  token?: string;
}

/** The version of the API that this client was made for; see docs/api.md. */
export const API_VERSION = 1;

export function connect({ url, token }: Target): Perry {
  const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const link = new RPCLink({ url: `${url.replace(/\/$/, "")}/rpc`, headers });
  // Its own type knows of no procedures; which there are is what the document says.
  return createORPCClient(link) as unknown as Perry;
}
