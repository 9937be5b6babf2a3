# A Java virtual machine: its own libraries, threads, compiled code.
# packages: openjdk-17-jdk-headless
# needs: java javac
# pinned: /libjvm\.so
# results: 5
cat >Host.java <<'J'
import java.util.stream.*;
import java.util.zip.*;
public class Host {
    public static void main(String[] arguments) throws Exception {
        System.out.println("sum: " + IntStream.rangeClosed(1, 2_000_000).parallel().mapToLong(x -> x * (long) x % 7).sum());
        CRC32 crc = new CRC32();
        crc.update("sopin".getBytes());
        System.out.println("crc: " + crc.getValue());
        var digest = java.security.MessageDigest.getInstance("SHA-256").digest("sopin".getBytes());
        System.out.println("digest: " + new java.math.BigInteger(1, digest).toString(16));
        try (var server = new java.net.ServerSocket(0)) {
            var client = new Thread(() -> {
                try (var socket = new java.net.Socket("127.0.0.1", server.getLocalPort())) {
                    socket.getOutputStream().write(42);
                } catch (java.io.IOException error) {
                    throw new RuntimeException(error);
                }
            });
            client.start();
            System.out.println("socket: " + server.accept().getInputStream().read());
            client.join();
        }
        // The virtual machine lives on signals of this kind.
        try {
            Object nothing = arguments.length > 5 ? "x" : null;
            System.out.println(nothing.hashCode());
        } catch (NullPointerException expected) {
            System.out.println("caught: null");
        }
        try {
            recurse(0);
        } catch (StackOverflowError expected) {
            System.out.println("caught: overflow");
        }
    }

    static int recurse(int x) {
        return recurse(x + 1) + 1;
    }
}
J
javac Host.java
java -Xmx128m Host
java -Xint -Xmx128m Host
