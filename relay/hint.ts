/**
 * The wake-up hint: a datagram that tells a relay which outbox has something new. It is sent after the commit, may be
 * lost, and never fails anybody; polling stays the truth.
 */
import { createSocket } from "node:dgram";
import type { HostPort } from "../services/kit/config.ts";

/** Tells relays that `source`'s outbox has new rows. */
export interface HintSender {
  /** Never throws, never waits. Calls within one turn of the event loop are one datagram. */
  send(): void;
  close(): void;
}

/** Sends hints for one source to every relay instance in `targets`. */
export function openHintSender(source: string, targets: readonly HostPort[]): HintSender {
  const socket = createSocket("udp4");
  // A refused datagram comes back as an error event: nobody listens there, and nobody has to.
  socket.on("error", () => undefined);
  socket.unref();
  const payload = new TextEncoder().encode(source);
  let queued = false;
  let closed = false;
  return {
    send() {
      if (queued || closed) return;
      queued = true;
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
    },
    close() {
      if (closed) return;
      closed = true;
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
