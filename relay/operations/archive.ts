/** Runs the archive job at an operator's command, without waiting for the relay's schedule. */
import { messageOf } from "../../services/kit/errors.ts";
import { runArchive } from "../outbox/archive.ts";
import { ensureAuditTable, type OperatorCommand, recordCommand, recordResult } from "./audit-log.ts";
import type { OperatedSource } from "./source.ts";

/**
 * Moves published rows to the archive. Each batch is a transaction of its own, so the audit row is written at the start.
 * @throws what the database throws. Rows that were moved stay moved, and it is safe to run it again.
 */
export async function archiveNow(
  { database, outboxTable, archiveTable }: OperatedSource,
  options: { readonly olderThanMs: number; readonly command: OperatorCommand; readonly signal: AbortSignal },
): Promise<{ readonly moved: number; readonly complete: boolean }> {
  await ensureAuditTable(database);
  const auditId = await recordCommand(database, options.command, { outcome: "STARTED" });
  const { olderThanMs, signal } = options;
  try {
    const { moved } = await runArchive({ database, outboxTable, archiveTable, olderThanMs, signal });
    const complete = !signal.aborted;
    await recordResult(database, auditId, { moved, outcome: complete ? "COMPLETE" : "STOPPED" });
    return { moved, complete };
  } catch (error) {
    const message = messageOf(error);
    await recordResult(database, auditId, { outcome: "FAILED", error: message }).catch(() => undefined);
    throw error;
  }
}
