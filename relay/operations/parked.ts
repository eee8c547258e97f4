/**
 * An operator's view of what a service has parked, and the request to redeliver it, which the service carries out. Wraps
 * inbox/parked.ts: these functions also serve a service that has no inbox, and record each request in the audit log.
 */
import type { Database } from "../../services/kit/database.ts";
import { errorNumber } from "../../services/kit/database-errors.ts";
import { listParked, type ParkedEvent, type ParkedKey, requestRedelivery, showParked } from "../inbox/parked.ts";
import { parkedKeyTableName } from "../tables.ts";
import { ensureAuditTable, type OperatorCommand, recordCommand } from "./audit-log.ts";

const noSuchTableError = 1146;

/** The parked keys of a service. Empty if the service has no inbox, because it only publishes. */
export async function listParkedKeys(
  database: Database,
  service: string,
  options: { readonly limit: number },
): Promise<readonly ParkedKey[]> {
  return (await ifInboxExists(() => listParked(database, service, options))) ?? [];
}

/** The number of a service's parked keys. */
export async function countParkedKeys(database: Database, service: string): Promise<number> {
  const rows = await ifInboxExists(() =>
    database.query<{ parked: number }>(`SELECT COUNT(*) AS parked FROM ${parkedKeyTableName(service)}`),
  );
  return Number(rows?.[0]?.parked ?? 0);
}

/** A parked key with its events in order; undefined if the key is not parked, or the service has no inbox. */
export async function findParkedKey(
  database: Database,
  service: string,
  key: string,
): Promise<{ readonly key: ParkedKey; readonly events: readonly ParkedEvent[] } | undefined> {
  return await ifInboxExists(() => showParked(database, service, key));
}

/** Undefined if the inbox's tables do not exist. */
async function ifInboxExists<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (errorNumber(error) === noSuchTableError) return undefined;
    throw error;
  }
}

/** Requests the redelivery of parked keys and records the request. Returns the number of new requests. */
export async function requestParkedRedelivery(
  database: Database,
  service: string,
  keys: { readonly key: string } | "all",
  command: OperatorCommand,
): Promise<number> {
  await ensureAuditTable(database);
  return await database.transaction(async (transaction) => {
    const requested = await requestRedelivery(transaction, service, keys);
    // Zero if it was requested before, or if the keys are no longer parked: then nothing changed.
    if (requested > 0) await recordCommand(transaction, command, { requested, service });
    return requested;
  });
}
