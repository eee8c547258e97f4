/** A signal that follows others until it is disposed. */
export interface LinkedSignal extends Disposable {
  readonly signal: AbortSignal;
}

/**
 * A signal that is aborted as soon as one of `sources` is, with its reason. Dispose it when its work is done: then it
 * follows them no more, and nothing of it is left on them.
 *
 * Use it instead of `AbortSignal.any`, which nothing detaches: in Bun, a combined signal on which a listener was left stays
 * until one of its sources is aborted, and a signal like "this process closes" lives as long as the process. Source:
 * oven-sh/bun#43129, and measured with Bun 1.4.5 (1.2 KB for each signal).
 */
export function linkSignals(...sources: readonly AbortSignal[]): LinkedSignal {
  const linked = new AbortController();
  const follow = (event: Event) => linked.abort((event.target as AbortSignal).reason);
  for (const source of sources) {
    if (source.aborted) linked.abort(source.reason);
    else source.addEventListener("abort", follow);
  }
  return {
    signal: linked.signal,
    [Symbol.dispose]() {
      for (const source of sources) source.removeEventListener("abort", follow);
    },
  };
}
