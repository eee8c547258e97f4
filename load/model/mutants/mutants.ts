/**
 * Mutants of the domain code: small, deliberate mistakes, one at a time. The explorer must find every one of them.
 * A mutant that survives shows a mistake that the model would not notice.
 */
import type { ServiceName } from "../../../proto/event-table.ts";
import type { Change } from "../../mutation/change.ts";
import { inventoryMutants } from "./inventory.ts";
import { orderMutants } from "./order.ts";
import { paymentMutants } from "./payment.ts";

/** One mistake: `from`, which must occur exactly once in the service's domain.ts, is replaced by `to`. */
export interface ServiceMutant extends Change {
  readonly name: string;
}

/** A mutant and the service whose domain code it changes. */
export interface Mutant extends ServiceMutant {
  readonly service: ServiceName;
}

const byService: Readonly<Record<ServiceName, readonly ServiceMutant[]>> = {
  order: orderMutants,
  inventory: inventoryMutants,
  payment: paymentMutants,
};

export const mutants: readonly Mutant[] = (Object.keys(byService) as ServiceName[]).flatMap((service) =>
  byService[service].map((mutant) => ({ ...mutant, service })),
);
