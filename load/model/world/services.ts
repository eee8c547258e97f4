/** The services of the model. To add a service, write its ServiceModel and enter it in `models`. */
import type { SagaEvent, ServiceName } from "../../../proto/event-table.ts";
import { byService } from "../../../services/stack/services.ts";
import { inventory } from "./inventory.ts";
import { order } from "./order.ts";
import { payment } from "./payment.ts";
import type { ServiceModel } from "./service-model.ts";

const models = { order, inventory, payment } as const satisfies Record<ServiceName, unknown>;

type Models = typeof models;

/** The domain code under test, by service: the real code, or a mutant of it. */
export type Domains = { readonly [Name in ServiceName]: Models[Name]["domain"] };

/** One order's row in each service's database. */
export type Rows = { readonly [Name in ServiceName]: ReturnType<Models[Name]["initialRow"]> };

export type Row = Rows[ServiceName];

/** Any message: an event from the topic, a command from a client, an answer of the gateway. */
export type Incoming = SagaEvent | { [Name in ServiceName]: Parameters<Models[Name]["commit"]>[2] }[ServiceName];

/** One value for each service. */
export type PerService<T> = Readonly<Record<ServiceName, T>>;

/** The code that runs in production. */
export const realDomains = byService((service) => models[service].domain) as Domains;

/** The models without their types, for code that treats all services alike. */
export const serviceModels: PerService<ServiceModel<unknown, Row, Incoming>> = models;

/** The rows of an order that was just placed, in all services. */
export function initialRows(domains: Domains, orderId: string): Rows {
  return byService((service) => serviceModels[service].initialRow(domains[service], orderId)) as Rows;
}
