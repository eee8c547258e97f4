/**
 * The record that tells of an event which was given up: the event's own headers and the beginning of its payload, and
 * beside them where it came from, why it failed, when and how often. The row stays in the outbox, whole, as DEAD.
 */
import type { EventRecord, OutboxRow } from "../../proto/envelope.ts";

/** What is cut off can be read in the row. Any topic takes a record of this size. */
export const deadLetterPayloadMaxBytes = 16_384;
const valueLengthMax = 2_000;

/** Where a dead event came from, and what happened to it. */
export interface DeadLetter {
  readonly row: OutboxRow;
  /** The source's name in the relay's configuration. */
  readonly source: string;
  /** CloudEvents source of the event. */
  readonly ceSource: string;
  /** `schema.table` of the row. */
  readonly place: string;
  /** Where the event should have gone. */
  readonly topic: string;
  readonly error: string;
  /** All that counted, the last one included. */
  readonly attempts: number;
  readonly failedAt: Date;
}

/**
 * The dead-letter record. Its value is the payload as the row holds it, whatever the topic's encoding is: it may be the
 * encoding that failed. Cut to {@link deadLetterPayloadMaxBytes}, at the end of a character.
 */
export function toDeadLetter(letter: DeadLetter): EventRecord {
  const { row } = letter;
  const payload = new TextEncoder().encode(row.payload);
  const value = cutText(payload, deadLetterPayloadMaxBytes);
  return {
    key: row.aggregateId,
    value,
    headers: {
      ce_specversion: "1.0",
      ce_id: row.id,
      ce_type: row.type,
      ce_source: letter.ceSource,
      ce_time: row.occurredAt.toISOString(),
      ce_subject: row.aggregateId,
      ce_sequence: row.seq,
      "content-type": "text/plain; charset=utf-8",
      dead_letter_source: letter.source,
      dead_letter_table: letter.place,
      dead_letter_row_id: row.id,
      dead_letter_topic: letter.topic,
      dead_letter_error: letter.error.slice(0, valueLengthMax).toWellFormed(),
      dead_letter_attempts: String(letter.attempts),
      dead_letter_failed_at: letter.failedAt.toISOString(),
      dead_letter_payload_bytes: String(payload.byteLength),
      dead_letter_payload_cut: String(value.byteLength < payload.byteLength),
    },
  };
}

/** The first bytes of UTF-8, without a character that would be cut through. */
function cutText(bytes: Uint8Array, maxBytes: number): Uint8Array {
  if (bytes.byteLength <= maxBytes) return bytes;
  let end = maxBytes;
  // 10xxxxxx goes on with a character that began before.
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return bytes.subarray(0, end);
}
