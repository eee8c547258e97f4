/**
 * The rights of the database users, table by table. A service may INSERT into its outbox and SELECT from it, and nothing
 * else: what is published cannot be changed or taken back by the code that publishes it. README.md shows the whole grid, and
 * a test holds it against the server.
 */
import type { ServiceName } from "../../proto/event-table.ts";
import { auditTable } from "../../relay/operations/audit-log.ts";
import { outboxArchiveTableName, outboxTableName } from "../../relay/tables.ts";
import type { Queryable } from "../kit/database.ts";
import { errorNumber } from "../kit/database-errors.ts";
import { migrationTables } from "../kit/migrate.ts";
import { schemaName, serviceNames } from "./services.ts";

export const migratorUser = "shop_migrator";
const relayUser = "shop_relay";
/** All users, of which each service has one with the name of its schema. */
export const databaseUsers: readonly string[] = [migratorUser, relayUser, ...serviceNames.map(schemaName)];

type Right = "SELECT" | "INSERT" | "UPDATE" | "DELETE";
const everyRight: readonly Right[] = ["SELECT", "INSERT", "UPDATE", "DELETE"];

interface TableRights {
  readonly service: readonly Right[];
  readonly relay: readonly Right[];
}

/** What the service's user and the relay's may do with a table of the service's schema. */
function rightsOn(service: ServiceName, table: string): TableRights {
  if (table === outboxTableName(service)) {
    return { service: ["SELECT", "INSERT"], relay: ["SELECT", "UPDATE", "DELETE"] };
  }
  if (table === outboxArchiveTableName(service)) return { service: [], relay: ["SELECT", "INSERT", "DELETE"] };
  if (table === auditTable || migrationTables.includes(table)) return { service: [], relay: [] };
  return { service: everyRight, relay: [] };
}

/**
 * Gives the service's user and the relay's their rights in the service's schema and takes away any others, such as the rights
 * on the whole schema that earlier releases gave. Never takes away a right that is needed, so processes may run meanwhile.
 */
export async function setRights(admin: Queryable, service: ServiceName): Promise<void> {
  const schema = schemaName(service);
  const tables = await admin.query<{ name: string }>(
    "SELECT TABLE_NAME AS name FROM information_schema.TABLES WHERE TABLE_SCHEMA = ?",
    [schema],
  );
  for (const [role, user] of [
    ["service", schema],
    ["relay", relayUser],
  ] as const) {
    const present = await tableRights(admin, schema, user);
    const extra: string[] = [];
    for (const { name } of tables) {
      const wanted: readonly string[] = rightsOn(service, name)[role];
      const held = present.get(name) ?? [];
      const missing = wanted.filter((right) => !held.includes(right));
      if (missing.length > 0) await admin.execute(`GRANT ${missing.join()} ON ${schema}.\`${name}\` TO '${user}'@'%'`);
      const unwanted = held.filter((right) => !wanted.includes(right));
      if (unwanted.length > 0) extra.push(`${unwanted.join()} ON ${schema}.\`${name}\``);
    }
    // Only now, because a table's own rights replace those on the schema.
    for (const name of await schemaWideGrants(admin, schema, user)) extra.push(`ALL PRIVILEGES ON \`${name}\`.*`);
    for (const rights of extra) await revoke(admin, rights, user);
  }
}

const granteeOf = (user: string) => `'${user}'@'%'`;

/** The rights on single tables that the user has in the schema, by table. */
async function tableRights(
  admin: Queryable,
  schema: string,
  user: string,
): Promise<ReadonlyMap<string, readonly string[]>> {
  const rows = await admin.query<{ name: string; held: string }>(
    `SELECT TABLE_NAME AS name, PRIVILEGE_TYPE AS held FROM information_schema.TABLE_PRIVILEGES
      WHERE GRANTEE = ? AND TABLE_SCHEMA = ?`,
    [granteeOf(user), schema],
  );
  const byTable = Map.groupBy(rows, ({ name }) => name);
  return new Map(Array.from(byTable, ([name, held]) => [name, held.map((it) => it.held)]));
}

/** The schema's name as the user's grants on the whole schema spell it: there, `_` stands for any character unless escaped. */
async function schemaWideGrants(admin: Queryable, schema: string, user: string): Promise<readonly string[]> {
  const rows = await admin.query<{ name: string }>(
    `SELECT DISTINCT TABLE_SCHEMA AS name FROM information_schema.SCHEMA_PRIVILEGES
      WHERE GRANTEE = ? AND TABLE_SCHEMA IN (?)`,
    [granteeOf(user), [schema, schema.replaceAll("_", "\\_")]],
  );
  return rows.map(({ name }) => name);
}

/** "There is no such grant": another process has revoked it. */
const noSuchGrant = [1141, 1147];

async function revoke(admin: Queryable, rights: string, user: string): Promise<void> {
  try {
    await admin.execute(`REVOKE ${rights} FROM ${granteeOf(user)}`);
  } catch (error) {
    if (!noSuchGrant.includes(errorNumber(error) ?? 0)) throw error;
  }
}
