/**
 * The dead letter of an event that became DEAD: a record with the event's own headers and the start of its payload, and with
 * headers that say where the event came from, why and when it failed, and how often. The complete row stays in the outbox.
 */
import type { EventRecord, OutboxRow } from "../../proto/envelope.ts";

/** Far below the usual `max.message.bytes` of 1 MiB. The row keeps the whole payload. */
export const deadLetterPayloadMaxBytes = 16_384;
const errorLengthMax = 2_000;

/** A DEAD event, where it came from, and why it failed. */
export interface DeadLetter {
  readonly row: OutboxRow;
  /** The source's name in the relay's configuration. */
  readonly source: string;
  /** CloudEvents source of the event. */
  readonly ceSource: string;
  /** The row's `schema.table`. */
  readonly qualifiedTable: string;
  /** The topic that the event was meant for. */
  readonly topic: string;
  readonly error: string;
  /** Including the last. */
  readonly attempts: number;
  readonly failedAt: Date;
}

/**
 * The record to send to the dead-letter topic. Its value is the payload exactly as stored in the row, because encoding it
 * may be what failed. It is cut to {@link deadLetterPayloadMaxBytes}, between two characters.
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
      dead_letter_table: letter.qualifiedTable,
      dead_letter_row_id: row.id,
      dead_letter_topic: letter.topic,
      dead_letter_error: letter.error.slice(0, errorLengthMax).toWellFormed(),
      dead_letter_attempts: String(letter.attempts),
      dead_letter_failed_at: letter.failedAt.toISOString(),
      dead_letter_payload_bytes: String(payload.byteLength),
      dead_letter_payload_cut: String(value.byteLength < payload.byteLength),
    },
  };
}

/** The first `maxBytes` of UTF-8 text, without a character that would be cut in two. */
function cutText(bytes: Uint8Array, maxBytes: number): Uint8Array {
  if (bytes.byteLength <= maxBytes) return bytes;
  let end = maxBytes;
  // A byte 10xxxxxx continues a character.
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return bytes.subarray(0, end);
}
