/** Holds compose.yaml against the local stack: the same processes with the same configuration. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { planProcesses, relayRuntimeEnvironment, runtimeEnvironment } from "./processes.ts";
import { schemaName, serviceNames, services } from "./services.ts";
import { oneInstanceEach, readStackSettings, servicePortVariable } from "./settings.ts";

const root = join(import.meta.dir, "../..");

interface ComposeService {
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly ports: readonly string[];
}

const compose = Bun.YAML.parse(await Bun.file(join(root, "compose.yaml")).text()) as {
  readonly services: Readonly<Record<string, ComposeService>>;
};
const { gateway, others } = planProcesses(readStackSettings({}, root), oneInstanceEach);

for (const { name, command, env } of [gateway, ...others]) {
  test(`compose.yaml runs ${name} as npm start does, with the same variables`, () => {
    const process = compose.services[name];
    expect(process?.command).toEqual(["bun", ...command.slice(1)]);
    expect(Object.keys(process?.environment ?? {}).toSorted()).toEqual(Object.keys(env).toSorted());
    expect(process?.environment).toMatchObject(name === "relay" ? relayRuntimeEnvironment : runtimeEnvironment);
  });
}

for (const name of serviceNames) {
  test(`compose.yaml publishes the ports of ${name} and gives it its database`, () => {
    const { ports, environment } = compose.services[name] ?? { ports: [], environment: {} };
    const expected = Object.entries(services[name].ports);
    expect([...ports]).toEqual(
      expected.map(([port, number]) => `127.0.0.1:\${${servicePortVariable(name, port)}:-${number}}:${number}`),
    );
    const schema = schemaName(name);
    expect(environment).toMatchObject({
      INSTANCE: name,
      DATABASE_URL: `mysql://${schema}:${schema}@mysql:3306/${schema}`,
      ...Object.fromEntries(expected.map(([port, number]) => [`${port.toUpperCase()}_PORT`, String(number)])),
    });
  });
}

test("compose.yaml gives the relay the sources that it has in the local stack", () => {
  const relay = others.find(({ name }) => name === "relay");
  const withoutHost = (sources = "[]") => JSON.parse(sources.replaceAll(/@[\w.]+:\d+\//g, "@/")) as unknown;
  expect(withoutHost(compose.services.relay?.environment.RELAY_SOURCES)).toEqual(withoutHost(relay?.env.RELAY_SOURCES));
});
