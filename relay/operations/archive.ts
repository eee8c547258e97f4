/** The archive job, run by hand: for when the outbox should be smaller now, and not at the relay's next time. */
import { messageOf } from "../../services/kit/errors.ts";
import { runArchive } from "../outbox/archive.ts";
import {
  ensureAuditTable,
  type OperatedSource,
  type OperatorCommand,
  recordCommand,
  recordResult,
} from "./audit-log.ts";

/**
 * Moves published rows to the archive. The audit row is there from the beginning: each batch is a transaction of its own.
 * @throws what the database says; whatever was moved stays moved, and it may be run again.
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
