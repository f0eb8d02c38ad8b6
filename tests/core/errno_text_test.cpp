#include "core/errno_text.h"

#include <gtest/gtest.h>

namespace retort {

TEST(ErrnoText, ExplainsAFailure) {
  EXPECT_EQ(errno_text(ENOSPC), "No space left on device");
  errno = EFBIG;
  EXPECT_EQ(errno_text(), "File too large");
  EXPECT_EQ(errno_text(0), "the system gives no reason");  // and never "Success"
}

}  // namespace retort
