/** The process as it is started, on a real database. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { environment } from "../kit/config.ts";
import { freePort, testServers } from "../kit/testing.ts";
import { openDatabaseProxy, withSqlMode } from "../kit/testing-proxy.ts";

test("a service does not start on a database whose sessions are not safe, and says why", async () => {
  const { databaseAdminUrl, kafkaBrokers } = testServers();
  const proxy = await openDatabaseProxy(databaseAdminUrl, withSqlMode("NO_BACKSLASH_ESCAPES"));
  const child = Bun.spawn([process.execPath, "services/inventory/main.ts"], {
    cwd: join(import.meta.dir, "../.."),
    env: {
      ...environment(),
      DATABASE_URL: proxy.url,
      KAFKA_BROKERS: kafkaBrokers.map(({ host, port }) => `${host}:${port}`).join(","),
      HEALTH_PORT: String(await freePort()),
      RELAY_HINTS: "none",
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
    timeout: 20_000,
  });
  const output = await new Response(child.stdout).text();
  expect(await child.exited).toBe(2);
  expect(output).toContain("the database cannot be used safely");
  expect(output).toContain("NO_BACKSLASH_ESCAPES");
  proxy.close();
});
