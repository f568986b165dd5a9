"""Write the pieces of a chapter yourself, and have them checked, hinted and graded."""

from .__main__ import check as check
