/**
 * The times of the ownership protocol, in one place because they must add up. ownership.ts says what they are for; an
 * operator's command keeps to the same times (../operations/takeover.ts). ownership-times.unit.test.ts checks:
 *
 * - `freshForMs + sendTimeoutMs <= serverWaitMs`: the last send of an owner that falls silent ends before the server
 *   releases its lock.
 * - `pingIntervalMs + pingTimeoutMs <= freshForMs`: an owner may go on sending while it waits for a slow ping.
 * - `sendTimeoutMs < handOverMaxMs < serverWaitMs`: a handover waits for the send in flight, and does not lose the lock
 *   meanwhile, although nothing pings.
 * - `2 * pingIntervalMs < spreadIntervalMs`: between two handovers, the new owner takes the source with one ping and shows
 *   its new count with the next.
 */

/** How often an owner pings, and a waiting replica tries to own the source. */
export const pingIntervalMs = 1_000;
/** After this time without an answer a ping has failed, and the connection is closed. */
export const pingTimeoutMs = 2_000;
/** How long an owner may send after the start of a ping that the database has answered. */
export const freshForMs = 3_000;
/** The time limit of a send. */
export const sendTimeoutMs = 2_000;
/** The server ends a connection, and releases its lock, after this time without a statement (`wait_timeout`). */
export const serverWaitMs = 5_000;
/** How long a handover waits for the send in flight and its mark, before it releases the lock. */
export const handOverMaxMs = 3_000;
/**
 * A process hands over at most one source in this time, and does not claim that source back meanwhile. By then the new
 * owner's count includes it.
 */
export const spreadIntervalMs = 3_000;
