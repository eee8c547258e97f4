/** The processes of the system under test, and the network paths between them that a fault can hit. */
import type { ServiceName } from "../../proto/event-table.ts";
import { serviceNames } from "../../services/stack/services.ts";

/** Our own processes. They reach the servers through proxies. */
export type Client = ServiceName | "relay";
export const clients: readonly Client[] = [...serviceNames, "relay"];

export const servers = ["mariadb", "kafka", "gateway"] as const;
export type Server = (typeof servers)[number];

export type ProcessName = Client | Server;

/** A network path from one process to one server. */
export type LinkName = `${Client} → mariadb` | `${Client} → kafka` | "payment → gateway";

export const databaseLinks = clients.map((client): LinkName => `${client} → mariadb`);
export const links: readonly LinkName[] = [
  ...databaseLinks,
  ...clients.map((client): LinkName => `${client} → kafka`),
  "payment → gateway",
];
