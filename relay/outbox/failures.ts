/**
 * The one place where the relay sorts what went wrong. Whether an event is ever given up depends on this alone, so the
 * list of what counts against a row is closed, and everything that is not on it is somebody's outage.
 */
import { SchemaBehindError, UnencodablePayloadError } from "../../proto/envelope.ts";
import { causesOf } from "../../services/kit/errors.ts";
import { producerErrorOf } from "../kafka/errors.ts";

/**
 * - `outage`: of the database or the broker. Back off and try again; no row is to blame.
 * - `poison`: this row can never be published as it stands.
 * - `schema-behind`: the row is newer than this relay's schema. It waits for a newer relay.
 */
export type FailureKind = "outage" | "poison" | "schema-behind";

/** Sorts an error. Unknown is an outage. */
export function kindOf(error: unknown): FailureKind {
  for (const it of causesOf(error)) {
    if (it instanceof UnencodablePayloadError) return "poison";
    if (it instanceof SchemaBehindError) return "schema-behind";
  }
  return producerErrorOf(error) === "too-large" ? "poison" : "outage";
}
