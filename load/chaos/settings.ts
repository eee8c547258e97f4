import { join } from "node:path";
import { integer, readConfig, text } from "../../services/kit/config.ts";
import {
  type BrokerCount,
  portDefaults,
  readStackSettings,
  type StackSettings,
} from "../../services/stack/settings.ts";

/** Added to the ports of the stack that the environment describes. */
const portOffset = 2_000;

/**
 * Settings for a stack that can run beside the one that the environment describes: its data is in a subfolder of that
 * stack's data folder, and its ports are higher.
 * @throws ConfigError that names each faulty variable.
 */
export function readChaosSettings(
  env: Readonly<Record<string, string | undefined>>,
  root: string,
  brokers: BrokerCount = 1,
): StackSettings {
  const stack = readConfig(env, {
    dataFolder: text("STACK_DATA_DIR", ".data"),
    portOffset: integer("STACK_PORT_OFFSET", { fallback: 0, min: 0, max: 40_000 - portOffset }),
  });
  return readStackSettings(
    {
      ...Object.fromEntries(Object.entries(env).filter(([name]) => !portDefaults.has(name))),
      STACK_DATA_DIR: join(stack.dataFolder, "chaos"),
      STACK_PORT_OFFSET: String(stack.portOffset + portOffset),
    },
    root,
    brokers,
  );
}
