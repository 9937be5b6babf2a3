import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import javax.tools.JavaFileObject;
import javax.tools.SimpleJavaFileObject;
import javax.tools.ToolProvider;

/** A worker of measure.py: the Java compiler on a source in memory; run with a small heap, it collects garbage too. */
class Jvm {
    static class Source extends SimpleJavaFileObject {
        Source() {
            super(URI.create("string:///C.java"), Kind.SOURCE);
        }

        @Override
        public CharSequence getCharContent(boolean ignored) {
            return IntStream.range(0, 40)
                .mapToObj(n -> "static <T> java.util.List<T> m" + n + "(java.util.List<T> in) {"
                    + "return in.stream().filter(t -> t.hashCode() > " + n + ").sorted().toList(); }")
                .collect(Collectors.joining("\n", "class C {", "}"));
        }
    }

    public static void main(String[] arguments) throws Exception {
        var compiler = ToolProvider.getSystemJavaCompiler();
        var lines = new BufferedReader(new InputStreamReader(System.in));
        while (lines.readLine() != null) {
            compiler.getTask(null, null, null, List.of("-proc:none", "-d", arguments[0]), null,
                List.<JavaFileObject>of(new Source())).call();
            System.out.println("done");
        }
    }
}
