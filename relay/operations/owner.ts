/** Which connection owns a source. */
import { lockNameOf } from "../outbox/source-lock.ts";
import { nullOr } from "./rows.ts";
import type { OperatedSource } from "./source.ts";

/** The connection that holds a source's lock. User and host are null if this account may not see them. */
export interface SourceOwner {
  readonly connectionId: number;
  readonly user: string | null;
  /** The client's address, as the server sees it. */
  readonly host: string | null;
}

/** The owner of the source, as far as this account may see it; null if the lock is free. */
export async function readOwner({ database, schema, outboxTable }: OperatedSource): Promise<SourceOwner | null> {
  const [lock] = await database.query("SELECT IS_USED_LOCK(?) AS connectionId", [lockNameOf(schema, outboxTable)]);
  if (lock?.connectionId == null) return null;
  const connectionId = Number(lock.connectionId);
  // An account that may not see other accounts' connections gets no row; on some servers, an error.
  const [process] = await database
    .query("SELECT USER AS user, HOST AS host FROM information_schema.PROCESSLIST WHERE ID = ?", [connectionId])
    .catch(() => []);
  return { connectionId, user: nullOr(String, process?.user), host: nullOr(String, process?.host) };
}

/** For a message: `connection 7 of relay@10.0.0.5:4711`, as far as it is known. */
export function describeOwner({ connectionId, user, host }: SourceOwner): string {
  return `connection ${connectionId}${user === null ? "" : ` of ${user}@${host ?? "?"}`}`;
}
