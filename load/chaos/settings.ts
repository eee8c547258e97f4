import { join } from "node:path";
import { integer, readConfig, text } from "../../services/kit/config.ts";
import { portDefaults, readStackSettings, type StackSettings } from "../../services/stack/settings.ts";

/** Above the ports of the stack that the same environment describes. */
const portOffset = 2_000;

/**
 * Settings for a stack beside the one that the environment describes: a folder in its data folder, ports above its ports.
 * @throws ConfigError naming each faulty variable.
 */
export function readChaosSettings(env: Readonly<Record<string, string | undefined>>, root: string): StackSettings {
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
  );
}
