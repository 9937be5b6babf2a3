import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.concurrent.Executors;
import java.util.stream.IntStream;
import java.util.zip.CRC32;
import java.util.zip.Deflater;
import java.util.zip.DeflaterOutputStream;

/*
 * Answers questions by HTTP until its standard input ends, and then exits with 42. Each answer runs
 * compiled code, libraries of the virtual machine (zip, net, nio) and its handler of SIGSEGV, and
 * makes garbage for the collector.
 */
public class Answers {
    public static void main(String[] arguments) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 50);
        server.createContext("/", Answers::handle);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.start();
        System.out.println("port " + server.getAddress().getPort());
        while (System.in.read() >= 0) {
        }
        System.exit(42);
    }

    private static void handle(HttpExchange exchange) throws IOException {
        byte[] answer;
        int status = 200;
        try {
            answer = answer(Integer.parseInt(exchange.getRequestURI().getPath().substring(1)));
        } catch (Exception error) {
            answer = error.toString().getBytes(StandardCharsets.UTF_8);
            status = 500;
        }
        exchange.sendResponseHeaders(status, answer.length);
        try (var body = exchange.getResponseBody()) {
            body.write(answer);
        }
    }

    private static byte[] answer(int question) throws Exception {
        String words = IntStream.range(0, 2000).mapToObj(i -> "word " + i * question).reduce("", (a, b) -> a.length() > 4000 ? b : a + b);
        ByteArrayOutputStream deflated = new ByteArrayOutputStream();
        try (var stream = new DeflaterOutputStream(deflated, new Deflater(question % 9 + 1))) {
            stream.write(words.getBytes(StandardCharsets.UTF_8));
        }
        CRC32 sum = new CRC32();
        sum.update(deflated.toByteArray());
        byte[] digest = MessageDigest.getInstance("SHA-256").digest(deflated.toByteArray());
        return (sum.getValue() + " " + HexFormat.of().formatHex(digest) + " " + caught(question)).getBytes(StandardCharsets.UTF_8);
    }

    /* The virtual machine makes this exception of a signal, once the code is compiled. */
    private static String caught(int question) {
        String nothing = question < 0 ? "x" : null;
        try {
            return "length " + nothing.length();
        } catch (NullPointerException expected) {
            return "caught";
        }
    }
}
