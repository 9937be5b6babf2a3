import java.nio.file.Path;

/** Calls the function of the plug-in that the argument names: once so that it does no harm, and once after a line of input. */
public class Host {
    static native int call(boolean dies);
    static native int data(boolean dies);
    static native int lazy(boolean dies);
    static native int nowhere(boolean dies);
    static native int nothing(boolean dies);
    static native int wild(boolean dies);
    static native int stray(boolean dies);
    static native int aborted(boolean dies);
    static native int trap(boolean dies);
    static native int overflow(boolean dies);
    static native int freed(boolean dies);
    static native int twice(boolean dies);
    static native int exhausted(boolean dies);
    static native int mapped(boolean dies);
    static native int raised(boolean dies);

    public static void main(String[] arguments) throws Exception {
        System.load(Path.of("plug.so").toAbsolutePath().toString());
        var method = Host.class.getDeclaredMethod(arguments[0], boolean.class);
        method.invoke(null, false);
        System.out.println("ready");
        if (System.in.read() != -1) {
            System.out.println(method.invoke(null, true));
        }
    }
}
