#include "core/digest.h"

#include <gtest/gtest.h>

#include "core/file.h"

namespace retort {

TEST(Digest, KnownValues) {  // XXH3-64 of the reference implementation, seed 0
  EXPECT_EQ(hex(xxh3("")), "2d06800538d394c2");
  EXPECT_EQ(hex(xxh3("a")), "e6c632b61e964e1f");
}

TEST(Digest, PiecesEqualTheWhole) {
  const std::string text(10007, 'x');
  for (size_t cut : {size_t{0}, size_t{1}, size_t{240}, size_t{4096}, text.size()}) {
    Digest digest;
    digest.add(as_bytes(std::string_view(text).substr(0, cut)));
    digest.add(as_bytes(std::string_view(text).substr(cut)));
    EXPECT_EQ(digest.value(), xxh3(text)) << cut;
  }
}

}  // namespace retort
