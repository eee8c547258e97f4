/** For integration tests: a proxy in front of the database that loses or changes what clients send. */
import { connect, createServer, type Socket } from "node:net";

/**
 * Opens a proxy to the server of `databaseUrl`. Once a client is logged in, `onStatement` sees each packet with a statement
 * and returns what is passed on; undefined loses it.
 */
export async function openDatabaseProxy(
  databaseUrl: string,
  onStatement: (packet: Buffer) => Buffer | undefined,
): Promise<{ readonly url: string; close(): void }> {
  const url = new URL(databaseUrl);
  const [serverPort, serverHost] = [Number(url.port), url.hostname];
  const sockets = new Set<Socket>();
  const proxy = createServer((client) => {
    const server = connect(serverPort, serverHost);
    client.on("data", (data) => {
      const packet = data as Buffer;
      const passed = isStatement(packet) ? onStatement(packet) : packet;
      if (passed !== undefined) server.write(passed);
    });
    server.pipe(client);
    for (const socket of [client, server]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        client.destroy();
        server.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const address = proxy.address();
  url.hostname = "127.0.0.1";
  url.port = String(typeof address === "object" ? address?.port : 0);
  return {
    url: url.href,
    close() {
      for (const socket of sockets) socket.destroy();
      proxy.close();
    },
  };
}

/** Packets after the login have the number 0; 3 is the command of a statement. */
const isStatement = (packet: Buffer) => packet[3] === 0 && packet[4] === 3;

/** Sets another `sql_mode` than the client wants, as a proxy with settings of its own does. */
export function withSqlMode(mode: string): (packet: Buffer) => Buffer {
  return (packet) => {
    // Latin-1 keeps every byte, and padding keeps the packet's length.
    const sql = packet.toString("latin1");
    const changed = sql.replace(/sql_mode = '([^']*)'/, (whole) => `sql_mode = '${mode}'`.padEnd(whole.length));
    return Buffer.from(changed, "latin1");
  };
}
