/** The processes of the system under test, and the network paths between them that a fault can hit. */
import type { ServiceName } from "../../proto/event-table.ts";
import { serviceNames } from "../../services/stack/services.ts";

/** Our own processes: each may run as several instances. */
export type Role = ServiceName | "relay";
export const roles: readonly Role[] = [...serviceNames, "relay"];

/** One instance. It reaches the servers through proxies of its own. */
export type Client = Role | `${Role}-${number}`;
export type Broker = "kafka" | `kafka-${number}`;

export const serverKinds = ["mariadb", "kafka", "gateway"] as const;
export type ServerKind = (typeof serverKinds)[number];
export type Server = "mariadb" | "gateway" | Broker;

export type ProcessName = Client | Server;

/** The paths from all instances of a role to a kind of server. A fault picks a busy one of them when it strikes. */
export type LinkName = `${Role} → mariadb` | `${Role} → kafka` | "payment → gateway";

export const databaseLinks = roles.map((role): LinkName => `${role} → mariadb`);
export const links: readonly LinkName[] = [
  ...databaseLinks,
  ...roles.map((role): LinkName => `${role} → kafka`),
  "payment → gateway",
];
