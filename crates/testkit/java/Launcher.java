import org.PACKAGE.common.settings.Settings;
import org.PACKAGE.env.Environment;
import org.PACKAGE.node.Node;
import org.PACKAGE.transport.Netty4Plugin;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.Collections;
import java.util.concurrent.CountDownLatch;

/** One node: HOME SETTING=VALUE... Plugins are not loaded from a directory. */
public class Launcher extends Node {
    Launcher(Environment environment) {
        super(environment, Collections.singletonList(Netty4Plugin.class), false);
    }

    public static void main(String[] args) throws Exception {
        Path home = Paths.get(args[0]);
        Files.createDirectories(home.resolve("config"));
        Settings.Builder settings = Settings.builder()
            .put("path.home", home.toString())
            .put("cluster.name", "test").put("node.name", "one")
            .put("network.host", "127.0.0.1").put("discovery.type", "single-node")
            .put("transport.type", "netty4").put("http.type", "netty4");
        for (int i = 1; i < args.length; i++) {
            String[] pair = args[i].split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        new Launcher(new Environment(settings.build(), home.resolve("config"))).start();
        new CountDownLatch(1).await();
    }
}
