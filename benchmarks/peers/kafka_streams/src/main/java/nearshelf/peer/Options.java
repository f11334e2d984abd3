package nearshelf.peer;

import java.util.HashMap;
import java.util.Map;
import java.util.Set;

/** The command line: `--name value` pairs, and any number of `--set setting=value` for settings of Kafka Streams. */
record Options(Map<String, String> given, Map<String, String> settings) {

    private static final Set<String> NEEDED = Set.of(
            "bootstrap-servers", "application-id", "stock", "orders", "allocations", "network", "state-directory");
    private static final Map<String, String> DEFAULTS =
            Map.of("store", "memory", "commit-interval-ms", "100", "cache-mb", "0");

    static Options parse(String[] arguments) {
        Map<String, String> given = new HashMap<>(DEFAULTS);
        Map<String, String> settings = new HashMap<>();
        for (int at = 0; at < arguments.length; at += 2) {
            String name = arguments[at].replaceFirst("^--", "");
            if (at + 1 == arguments.length) {
                throw new IllegalArgumentException("expected a value after --" + name);
            }
            String value = arguments[at + 1];
            if (name.equals("set")) {
                String[] setting = value.split("=", 2);
                settings.put(setting[0], setting[1]);
            } else if (NEEDED.contains(name) || DEFAULTS.containsKey(name)) {
                given.put(name, value);
            } else {
                throw new IllegalArgumentException("unknown option --" + name);
            }
        }
        for (String name : NEEDED) {
            if (!given.containsKey(name)) {
                throw new IllegalArgumentException("missing option --" + name);
            }
        }
        return new Options(given, settings);
    }

    String get(String name) {
        return given.get(name);
    }

    long number(String name) {
        return Long.parseLong(given.get(name));
    }
}
