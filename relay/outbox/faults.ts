/**
 * Decides whether an error is an event's fault or an outage. The list of faults is closed, because an event that has one
 * may end up DEAD. Any other error, an unknown one included, is an outage.
 */
import { type OutboxRow, SchemaBehindError, UnencodablePayloadError } from "../../proto/envelope.ts";
import { causesOf } from "../../services/kit/errors.ts";
import { producerErrorOf } from "../kafka/errors.ts";

/**
 * What is wrong with an event.
 *
 * - `poison`: it can never be published as it stands.
 * - `schema-behind`: its schema is newer than this relay's. It waits for a newer relay.
 */
export type Fault = "poison" | "schema-behind";

/** The event's fault that `error` shows; undefined for an outage of the database or the broker. */
export function faultOf(error: unknown): Fault | undefined {
  for (const it of causesOf(error)) {
    if (it instanceof UnencodablePayloadError) return "poison";
    if (it instanceof SchemaBehindError) return "schema-behind";
  }
  return producerErrorOf(error) === "too-large" ? "poison" : undefined;
}

/** The fields that name an event in a log. */
export function logFieldsOf({ id, type, aggregateId, seq }: OutboxRow) {
  return { id, type, key: aggregateId, seq };
}
