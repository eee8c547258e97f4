/**
 * Mutants of the domain code: small, deliberate mistakes, one at a time. The explorer must catch every one of them. A
 * mutant that survives is a mistake that the model would not notice.
 */
import type { ServiceName } from "../../../proto/event-table.ts";
import { serviceNames } from "../../../services/stack/services.ts";
import type { Change } from "../../mutation/change.ts";
import { mutants as inventory } from "./inventory.ts";
import { mutants as order } from "./order.ts";
import { mutants as payment } from "./payment.ts";

/** One mistake: `from`, which must occur exactly once in the service's domain.ts, is replaced by `to`. */
export interface ServiceMutant extends Change {
  readonly name: string;
}

/** A mutant and the service whose domain code it changes. */
export interface Mutant extends ServiceMutant {
  readonly service: ServiceName;
}

const mutantsOf: Readonly<Record<ServiceName, readonly ServiceMutant[]>> = { order, inventory, payment };

export const mutants: readonly Mutant[] = serviceNames.flatMap((service) =>
  mutantsOf[service].map((mutant) => ({ ...mutant, service })),
);
