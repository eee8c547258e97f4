/**
 * The one place where the relay sorts what went wrong. Whether an event is ever given up depends on this alone, so the
 * list of what counts against a row is closed, and everything that is not on it is somebody's outage.
 */
import { SchemaBehindError, UnencodablePayloadError } from "../proto/envelope.ts";

/**
 * - `outage`: of the database or the broker. Back off and try again; no row is to blame.
 * - `poison`: this row can never be published as it stands.
 * - `schema-behind`: the row is newer than this relay's schema. It waits for a newer relay.
 */
export type FailureKind = "outage" | "poison" | "schema-behind";

/**
 * The broker's answers that blame the records: larger than the topic's `max.message.bytes`, or than its
 * `segment.bytes`. Source: org.apache.kafka.common.protocol.Errors, codes 10 and 18.
 */
const tooLarge: ReadonlySet<unknown> = new Set(["MESSAGE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"]);
const causeDepthMax = 5;

/** Sorts an error. Unknown is an outage. */
export function kindOf(error: unknown): FailureKind {
  // kafkajs wraps the broker's answer in errors of its own.
  for (let it: unknown = error, depth = 0; it instanceof Error && depth < causeDepthMax; it = it.cause, depth++) {
    if (it instanceof UnencodablePayloadError) return "poison";
    if (it instanceof SchemaBehindError) return "schema-behind";
    if (tooLarge.has((it as Error & { type?: unknown }).type)) return "poison";
  }
  return "outage";
}

/** What `last_error` and the dead-letter record hold of an error, at the most. */
const errorLengthMax = 2_000;

/** An error as an operator reads it: its name, its message, and those of what caused it. */
export function describeError(error: unknown): string {
  const parts: string[] = [];
  for (let it: unknown = error, depth = 0; it !== undefined && depth < causeDepthMax; depth++) {
    parts.push(it instanceof Error ? `${it.name}: ${it.message}` : String(it));
    it = it instanceof Error ? it.cause : undefined;
  }
  // kafkajs wraps errors in ones with the same message. NUL has no place in a header or on a terminal.
  const text = [...new Set(parts)].join(" ← ").replaceAll("\0", "\u{FFFD}");
  return text.slice(0, errorLengthMax).toWellFormed();
}
