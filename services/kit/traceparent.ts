/** W3C Trace Context, version 00 (https://www.w3.org/TR/trace-context/#traceparent-header). One order is one trace. */

const pattern = /^[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?$/;

function randomHex(bytes: number): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) => byte.toString(16).padStart(2, "0")).join(
    "",
  );
}

/** The trace id of a `traceparent`, or undefined if it is missing or malformed. */
export function traceIdOf(traceparent: string | undefined): string | undefined {
  return traceparent === undefined ? undefined : pattern.exec(traceparent)?.[1];
}

/** A new span in the trace of `parent`, or a new sampled trace if `parent` is missing or malformed. */
export function childTraceparent(parent?: string): string {
  const match = parent === undefined ? null : pattern.exec(parent);
  return `00-${match?.[1] ?? randomHex(16)}-${randomHex(8)}-${match?.[3] ?? "01"}`;
}
