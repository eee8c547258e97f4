/** An operator's look at what a service has parked, and the request to try it again; the service itself carries it out. */
import type { Database } from "../../services/kit/database.ts";
import { errorNumber } from "../../services/kit/database-errors.ts";
import { listParked, type ParkedEvent, type ParkedKey, requestReplay, showParked } from "../inbox/parking.ts";
import { parkedKeyTableName } from "../tables.ts";
import { ensureAuditTable, type OperatorCommand, recordCommand } from "./audit-log.ts";

const noSuchTable = 1146;

/** The parked keys of a service; none where the database has no such table, since it only publishes. */
export async function listParkedKeys(
  database: Database,
  service: string,
  options: { readonly limit: number },
): Promise<readonly ParkedKey[]> {
  return (await whereInbox(() => listParked(database, service, options))) ?? [];
}

/** The number of a service's parked keys. */
export async function countParkedKeys(database: Database, service: string): Promise<number> {
  const rows = await whereInbox(() =>
    database.query<{ parked: number }>(`SELECT COUNT(*) AS parked FROM ${parkedKeyTableName(service)}`),
  );
  return Number(rows?.[0]?.parked ?? 0);
}

/** A parked key with its events in order; undefined where it is not parked, or the database only publishes. */
export async function findParkedKey(
  database: Database,
  service: string,
  key: string,
): Promise<{ readonly key: ParkedKey; readonly events: readonly ParkedEvent[] } | undefined> {
  return await whereInbox(() => showParked(database, service, key));
}

async function whereInbox<T>(look: () => Promise<T>): Promise<T | undefined> {
  try {
    return await look();
  } catch (error) {
    if (errorNumber(error) === noSuchTable) return undefined;
    throw error;
  }
}

/** Requests a replay, and writes it down. Returns how many keys are asked for now that were not before. */
export async function requestParkedReplay(
  database: Database,
  service: string,
  keys: { readonly key: string } | "all",
  command: OperatorCommand,
): Promise<number> {
  await ensureAuditTable(database);
  return await database.transaction(async (transaction) => {
    const requested = await requestReplay(transaction, service, keys);
    // Asked for already, or free again: nothing was changed.
    if (requested > 0) await recordCommand(transaction, command, { requested, service });
    return requested;
  });
}
