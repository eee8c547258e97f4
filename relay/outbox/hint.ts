/**
 * The wake-up hint: a UDP datagram that tells relays which outbox has new rows. It is sent after the commit and may be lost.
 * Sending never fails. The relay does not depend on hints, because it polls as well.
 */
import { createSocket } from "node:dgram";
import type { HostPort } from "../../services/kit/config.ts";

/** Tells relays that `source`'s outbox has new rows. */
export interface HintSender {
  /** Never throws and never blocks. Calls within one turn of the event loop share a datagram. */
  send(): void;
  /** For events that are not urgent: sent after {@link sendLaterDelayMs}, or with an earlier `send`. */
  sendLater(): void;
  close(): void;
}

/** How long a hint that is not urgent waits for others. */
const sendLaterDelayMs = 50;

/** Sends hints for one source to every relay instance in `targets`. */
export function openHintSender(source: string, targets: readonly HostPort[]): HintSender {
  const socket = createSocket("udp4");
  // If no relay listens at a target, the socket emits an error. That is expected.
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
          // The hint is lost, which is allowed.
        }
      }
    });
  };
  return {
    send,
    sendLater() {
      if (!queued && !closed) later ??= setTimeout(send, sendLaterDelayMs);
    },
    close() {
      if (closed) return;
      closed = true;
      clearTimeout(later);
      socket.close();
    },
  };
}

/** Receives hints. */
export interface HintReceiver {
  readonly port: number;
  close(): void;
}

/** Listens for hints and passes the source's name to `onHint`. @throws Error if the port is in use. */
export function listenForHints(options: {
  readonly host: string;
  /** 0: the system chooses. */
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
