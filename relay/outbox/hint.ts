/**
 * The wake-up hint: a datagram that tells a relay which outbox has something new. It is sent after the commit, may be
 * lost, and never fails anybody; polling stays the truth.
 */
import { createSocket } from "node:dgram";
import type { HostPort } from "../../services/kit/config.ts";

/** Tells relays that `source`'s outbox has new rows. */
export interface HintSender {
  /** Never throws, never waits. Calls within one turn of the event loop are one datagram. */
  send(): void;
  /** The same for what nobody waits for: within {@link laterMs}, or with the next one that goes out before. */
  sendLater(): void;
  close(): void;
}

/** How long a hint waits for others that nobody waits for. */
const laterMs = 50;

/** Sends hints for one source to every relay instance in `targets`. */
export function openHintSender(source: string, targets: readonly HostPort[]): HintSender {
  const socket = createSocket("udp4");
  // A refused datagram comes back as an error event: nobody listens there, and nobody has to.
  socket.on("error", () => undefined);
  socket.unref();
  const payload = new TextEncoder().encode(source);
  let queued = false;
  let closed = false;
  let later: ReturnType<typeof setTimeout> | undefined;
  const send = () => {
    if (queued || closed) return;
    queued = true;
    clearTimeout(later);
    later = undefined;
    setImmediate(() => {
      queued = false;
      if (closed) return;
      for (const { host, port } of targets) {
        try {
          socket.send(payload, port, host, () => undefined);
        } catch {
          // Lost, as a hint may be.
        }
      }
    });
  };
  return {
    send,
    sendLater() {
      if (!queued && !closed) later ??= setTimeout(send, laterMs);
    },
    close() {
      if (closed) return;
      closed = true;
      clearTimeout(later);
      socket.close();
    },
  };
}

/** Receives hints; `onHint` gets the source's name. */
export interface HintReceiver {
  readonly port: number;
  close(): void;
}

/** Listens for hints. @throws Error when the port is taken. */
export function listenForHints(options: {
  readonly host: string;
  /** 0 lets the system choose. */
  readonly port: number;
  readonly onHint: (source: string) => void;
}): Promise<HintReceiver> {
  const socket = createSocket("udp4");
  return new Promise((resolve, reject) => {
    socket.once("error", reject);
    socket.on("message", (message) => options.onHint(message.toString("utf8")));
    socket.bind(options.port, options.host, () => {
      socket.off("error", reject);
      socket.on("error", () => undefined);
      resolve({ port: socket.address().port, close: () => socket.close() });
    });
  });
}
