// The plug-in of the C++ program: the same functions, and an object with virtual functions whose
// type and whose exception have their tables here.

#include <stdexcept>

#include "plug.h"
#include "shape.h"

namespace {

struct Square final : Shape {
    int area() const override { return 42; }
    void fail() const override {
        throw std::runtime_error("a square fails");
    }
};

// This type's description lies in the plug-in, and the handler of the exception reads it.
struct OwnError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Circle final : Shape {
    int area() const override { return 42; }
    void fail() const override { throw OwnError("a circle fails"); }
};

}  // namespace

extern "C" {

__attribute__((visibility("default"))) Shape *make_square() { return new Square; }
__attribute__((visibility("default"))) Shape *make_circle() { return new Circle; }

#define FUNCTION(way) \
    __attribute__((visibility("default"))) int plug_##way() { return die_##way(); }
WAYS(FUNCTION)
}
