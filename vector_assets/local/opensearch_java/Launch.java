import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;
import org.opensearch.common.logging.LogConfigurator;
import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;

/**
 * Runs one OpenSearch node: {@code Launch HOME CONFIG name=value...}.
 *
 * The node is made directly, without the server's bootstrap, which refuses to run as root and wants a security manager
 * that newer Java releases no longer have.
 */
public final class Launch {
    private static final String NAME = "local";

    private Launch() {}

    public static void main(String[] arguments) throws Exception {
        Path home = Path.of(arguments[0]).toAbsolutePath();
        Map<String, String> settings = new TreeMap<>();
        for (int i = 2; i < arguments.length; i++) {
            String[] parts = arguments[i].split("=", 2);
            settings.put(parts[0], parts[1]);
        }
        LogConfigurator.setNodeName(NAME);
        Settings place = Settings.builder().put("path.home", home.toString()).build();
        Environment environment =
                InternalSettingsPreparer.prepareEnvironment(place, settings, Path.of(arguments[1]), () -> NAME);
        LogConfigurator.configure(environment);
        Node node = new Node(environment);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> close(node)));
        node.start();
        Thread.currentThread().join();
    }

    private static void close(Node node) {
        try {
            node.close();
        } catch (java.io.IOException error) {
            error.printStackTrace();
        }
    }
}
